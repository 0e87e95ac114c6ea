"""The providers: one file per vendor API behind one Protocol.

protocol   what every provider does, and the data that passes between the rooms and a provider
registry   one line per provider: its name, its class, the parameters it takes
wrappers   policies that are providers themselves: retrying, observing
http       the one file that knows the HTTP client
"""
