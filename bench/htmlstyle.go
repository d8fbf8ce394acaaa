package bench

// pageStyle has each colour twice, for light and for dark. The eight of the series keep apart for eyes that see less
// colour, and texts never depend on colour alone: bars say met or MISSED, dots their target's name.
const pageStyle = `
:root{color-scheme:light dark;--bg:#fcfcfb;--ink:#1b1b1a;--soft:#5c5b57;--grid:#e3e2de;--good:#0a7d3c;--bad:#c22f2f;
--plain:#8b8a85;
--s0:#2a78d6;--s1:#eb6834;--s2:#1baf7a;--s3:#eda100;--s4:#e87ba4;--s5:#008300;--s6:#4a3aa7;--s7:#e34948}
@media (prefers-color-scheme:dark){:root{--bg:#1a1a19;--ink:#f2f1ee;--soft:#b0afa9;--grid:#3a3937;--good:#35b06a;
--bad:#f0716b;--plain:#8b8a85;--s0:#3987e5;--s1:#d95926;--s2:#199e70;--s3:#c98500;--s4:#d55181;--s5:#008300;
--s6:#9085e9;--s7:#e66767}}
body{margin:2em auto;max-width:64em;padding:0 1em;background:var(--bg);color:var(--ink);font:15px/1.45 sans-serif}
h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .4em}pre{overflow-x:auto;border:1px solid var(--grid);padding:.7em}
.wide{overflow-x:auto;margin-top:1em}table{border-collapse:collapse;font-size:13px}
td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap;
font-variant-numeric:tabular-nums}
td:first-child,th:first-child,.facts td{text-align:left;white-space:normal}th{color:var(--soft);font-weight:600}
.bad{color:var(--bad);font-weight:700}.warn{border-left:4px solid var(--bad);padding-left:.8em}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(24em,1fr));gap:1.2em}svg{width:100%;height:auto}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em;border-radius:2px}
svg text{font:11px sans-serif;fill:var(--soft)}svg .title{font-size:13px;fill:var(--ink)}
svg .value{fill:var(--ink)}.grid{stroke:var(--grid)}.one{stroke:var(--soft)}.goal{stroke:var(--ink);stroke-width:2}
.dot{fill:transparent}.dot:hover{fill:var(--soft)}
.met{fill:var(--good);background:var(--good)}.missed{fill:var(--bad);background:var(--bad)}
.plain{fill:var(--plain);background:var(--plain)}
`
