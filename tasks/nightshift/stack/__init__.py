"""The embedded servers: the production topology on one machine, from wheels, without containers or root.

`environment` says where and with which ports, secrets and variables; `roles` lists the servers; `supervise`
keeps them alive; `health` asks them; `lifecycle` brings everything up and down.
"""
