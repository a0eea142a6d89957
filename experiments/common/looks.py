"""One look for each method, the same in the figures of all experiments."""

LOOK = {
    "uniform": {"color": "0.6", "linestyle": ":", "marker": ""},
    "MSE": {"color": "tab:gray", "linestyle": "--", "marker": "s"},
    "SPO+": {"color": "tab:brown", "linestyle": "--", "marker": "*"},
    "perturbed": {"color": "tab:purple", "linestyle": "--", "marker": "P"},
    "identity": {"color": "tab:pink", "linestyle": "--", "marker": "X"},
    "true problem": {"color": "black", "linestyle": "-", "marker": "s"},
    "exact": {"color": "tab:red", "linestyle": "-", "marker": "o"},
    "smoothed": {"color": "tab:blue", "linestyle": "-", "marker": "D"},
    "LPGD lower": {"color": "tab:green", "linestyle": "-", "marker": "v"},
    "LPGD average": {"color": "tab:orange", "linestyle": "-", "marker": "^"},
}
