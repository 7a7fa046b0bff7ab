"""What users call: the command `fpr`, and the plugin of pytest.

Both may be started where other packages have the names of ours. So nothing here imports them before
there is work; then `own_packages.adopt` comes first.
"""
