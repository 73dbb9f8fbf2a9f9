"""The certificates of a host's sites: made, asked for, renewed, installed, and proven by what the web server serves."""
