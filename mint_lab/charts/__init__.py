"""The description of every chart, and its renderers for plotly and for static pictures."""
