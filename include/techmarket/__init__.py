"""Believable test data for TechMarket's four stores and the pancake shop.

The history is a function of the seed and the scale alone: every value is computed from its position
(customer 17's surname, line 2 of order 4711) by :mod:`techmarket.randomness`, so a table can
be streamed in any chunks, and another table can refer to its rows without remembering them.
"""
