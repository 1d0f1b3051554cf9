"""What holds for every API over HTTP: the endpoint table, the pipeline, and the port for styles.

A product's API is a table of endpoints and a *style*: how its requests are matched, who asks, how
they are read, and how it words a refusal. Everything else is the same at every door.
"""
