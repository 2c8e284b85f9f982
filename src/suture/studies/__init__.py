"""Studies: one function over a grid of parameters, resumable cell by cell; the paper's audit is one of them.

A study is a TOML file (``grid``, ``definitions``), its cells are done by an executor (``cells``, ``executors``),
and ``engine`` brings them together in a directory with tables of the results (``tables``). What a file may say
is told in docs/studies.md.
"""
