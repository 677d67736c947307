"""Doors to other tools, one file each: sentence-transformers, mteb, the HEAR benchmark, ONNX.

Each imports its tool when it is itself imported, so nothing here costs anything to those who do not use it.
"""
