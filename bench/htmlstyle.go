package bench

// pageStyle has each colour twice, for light and for dark. The eight of the series were searched for: as eyes see them
// that lack red, green or blue, each two of them still lie 0.1 apart in OKLab, where 0.02 is just seen; a test looks.
// Texts never depend on colour alone: bars say met or MISSED, dots their target's name.
//
// Tables and plots take the width there is, lines of text do not. What is too wide nevertheless scrolls below its first
// column, and on paper breaks its lines.
const pageStyle = `
:root{color-scheme:light dark;--bg:#fcfcfb;--ink:#1b1b1a;--soft:#5c5b57;--grid:#e3e2de;--good:#0a7d3c;--bad:#c22f2f;
--plain:#8b8a85;
--s0:#003aa9;--s1:#dd1700;--s2:#007f67;--s3:#b3a417;--s4:#c954b9;--s5:#1391ff;--s6:#6d2c5b;--s7:#223700}
@media (prefers-color-scheme:dark){:root{--bg:#1a1a19;--ink:#f2f1ee;--soft:#b0afa9;--grid:#3a3937;--good:#35b06a;
--bad:#f0716b;--plain:#8b8a85;--s0:#0580ff;--s1:#ff6f1c;--s2:#1f7a4c;--s3:#f2cd2e;--s4:#af71a1;--s5:#4dc4fb;
--s6:#b020b0;--s7:#a4ffe1}}
body{margin:2em auto;max-width:92em;padding:0 1em;background:var(--bg);color:var(--ink);font:15px/1.45 sans-serif}
p,ul{max-width:64em}
h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .4em}pre{white-space:pre-wrap;border:1px solid var(--grid);
padding:.7em}
.wide{overflow-x:auto;margin-top:1em}.wide svg{min-width:52em;max-width:64em}
table{border-collapse:collapse;font-size:13px}
td,th{padding:.2em .6em;text-align:right;vertical-align:top;border-bottom:1px solid var(--grid);white-space:nowrap;
font-variant-numeric:tabular-nums}
td:first-child,th:first-child,.facts td{text-align:left;white-space:normal}th{color:var(--soft);font-weight:600}
.wide td:first-child,.wide th:first-child{min-width:16em;position:sticky;left:0;background:var(--bg)}
.bad{color:var(--bad);font-weight:700}.warn{border-left:4px solid var(--bad);padding-left:.8em}
.sub{margin-left:1.5em}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24em,100%),1fr));gap:1.2em}
svg{display:block;width:100%;height:auto}
figure{margin:0;break-inside:avoid}figcaption{color:var(--soft);font-size:12px}
.keys span{display:inline-block;margin-right:.8em;white-space:nowrap}
.key,.line{display:inline-block;height:.8em;margin-right:.3em}.key{width:.8em;border-radius:2px}
.line{width:1.8em;height:.55em}
svg text{font:11px sans-serif;fill:var(--soft)}svg .title{font-size:13px;fill:var(--ink)}
svg .value{fill:var(--ink)}svg .value.missed,svg .value.disturbed{fill:var(--bad);font-weight:700}
.grid{stroke:var(--grid)}.one{stroke:var(--soft)}.goal{stroke:var(--ink);stroke-width:2}
.dot{fill:transparent}.dot:hover{fill:var(--soft)}
.met{fill:var(--good);background:var(--good)}.missed{fill:var(--bad);background:var(--bad)}
.plain{fill:var(--plain);background:var(--plain)}
@media screen and (min-width:50em){.stay{position:sticky;top:0;max-width:none;padding:.3em 0;background:var(--bg)}}
@media (max-width:50em){.wide td:first-child,.wide th:first-child{min-width:9em}}
@media print{*{print-color-adjust:exact}body{font-size:11px}table{font-size:9px}.wide{overflow:visible}
td,th{white-space:normal;padding:.1em .4em}.wide td:first-child,.wide th:first-child{min-width:11em;position:static}
tr{break-inside:avoid}h2{break-after:avoid}.wide svg{min-width:0}@page{size:landscape;margin:12mm}}
`
