"""Tables, figures and files of probes."""
