"""Colours of figures, the same in results, reports, analyses and the explorer."""

INK = "#23272e"
# Four of Okabe and Ito 2008 (safe for colour-blind readers), lightened where a dark page needs it; no yellow, for a white one.
# With sand and violet, the smallest CIELAB distance is 53 (13 under protan, deutan and tritan vision); with their orange and sky
# blue, which are near vermilion and blue, it is 20 (13).
COLORS = ("#1f82c0", "#d55e00", "#009e73", "#cc79a7", "#ceb46c", "#9100e8")
# Six more, chosen to contrast with a white and a dark page, and to maximise the smallest distance under normal, protan, deutan
# and tritan vision (Machado et al. 2009).
MANY_COLORS = (*COLORS, "#e69f00", "#924227", "#56b4e9", "#b16bff", "#4f4bb5", "#755488")
GREY = "#8a8f98"  # of what has no colour of its own
