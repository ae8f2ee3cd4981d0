"""All that can change a result but data: split, preprocessing, models, and the engines that train them.

An edit of a file in this folder gives every experiment a new signature, so that nothing that finished before is reused.
"""
