"""The core stays small: `python docs/size.py` prints how large it is."""

import ast

import size


def test_no_function_of_the_core_has_more_than_25_statements():
    assert size.functions().most_common(1)[0][1] <= 25


def test_no_kind_of_row_has_more_than_40_statements():
    found = size.rows()
    assert len(found) >= 10
    assert {name: count for name, count in found.items() if count > 40} == {}


def test_the_core_has_at_most_a_thousand_lines_of_code():
    assert sum(map(size.code_lines, size.core())) <= 1000


def test_docstrings_do_not_count():
    node = ast.parse('"""A module."""\n\ndef f():\n    """A function."""\n    return g(1)')
    assert size.statements(node) == 2  # def, return


def test_without_checks_what_refuses_does_not_count():
    node = ast.parse("""
class Row:
    name: str
    def validate(self):
        require(self.name)
def check_name(name):
    require(name)
""")
    assert size.statements(node) == 6 and size.statements(node, checks=False) == 2
