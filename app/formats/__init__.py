"""Pure translation between OpenAI's chat completions and the providers' own formats: no I/O, no clock, no chance.

A request is read once (`openai.Chat`), and each format writes it anew; an answer, whole or streamed, is read as the
same `answers.Piece`s, from which OpenAI's object or its chunks are made.
"""
