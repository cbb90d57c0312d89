"""The stores that published runs are brought to, one module each, which defines `Target`.

A module here, a connection `<module>_dwh` and its name in the setting `TARGETS` are all that a store needs.
"""
