"""``make demo``: the main job from nothing to torn down, on a private engine, told as it happens.

NGINX > three Node.js servers > Redis (``examples/node-redis``) is built, pushed, pulled, brought up, balanced, scaled,
hurt, diagnosed, updated and taken away, while a load generator counts the requests that fail: none may.
"""
