"""``dockyard compose``: the command line of the compose room. Arguments in, plans and progress out.

Nouns: *table* (every command in one place), *session* (the project, engine and looks of one invocation), *board* (how
progress looks on a terminal or in a log).
"""
