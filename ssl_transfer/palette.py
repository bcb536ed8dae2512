"""Colours of figures, the same in results, reports, analyses and the explorer."""

INK = "#23272e"
# Okabe and Ito 2008 (safe for colour-blind readers), lightened where a dark page needs it; no yellow, for a white one.
COLORS = ("#1f82c0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Six more, chosen to contrast with a white and a dark page, and to maximise the smallest CIELAB distance under normal, protan,
# deutan and tritan vision (Machado et al. 2009).
MANY_COLORS = (*COLORS, "#9100e8", "#924227", "#ceb46c", "#b16bff", "#4f4bb5", "#755488")
GREY = "#8a8f98"  # of what has no colour of its own
