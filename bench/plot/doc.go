// Package plot draws lines and bars as SVG inside a page of HTML. Colours are CSS variables, --s0 to --s7 for
// series and --ink, --soft, --grid for the rest, so that the page decides what they are in light and in dark. It
// knows nothing of what it draws.
package plot
