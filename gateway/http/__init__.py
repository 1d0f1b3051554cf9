"""HTTP at every door: the endpoint table, the request pipeline, and the port for styles.

A product's API is a table of endpoints and a *style*, which matches requests, authenticates the
caller, reads requests and renders errors. Everything else is the same at every door.
"""
