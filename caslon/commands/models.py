"""Commands about models: generate, chat, serve."""

from caslon.commands.output import group

app = group()
