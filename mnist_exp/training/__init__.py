"""Split, preprocess and train: all that can change a result, except data.

An edit of a file in this folder gives every experiment a new signature, so that nothing that finished before is reused.
"""
