"""The smallest application: says hello and ends."""

from unikit.apps import App

IMAGE = App(
    name="hello",
    summary="says hello, names its platform and components, and ends",
    events=False,
)
