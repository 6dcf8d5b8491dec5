"""The device's side of every measurement: standard library, numpy and one runtime, nothing else.

It travels as a zip file, runs on Python 3.9 and later, speaks JSON Lines over stdin and stdout and
ends when its stdin closes.
"""
