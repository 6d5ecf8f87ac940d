"""What a story expected and what was seen are shown side by side."""

import pytest

pytest.register_assert_rewrite("tests.scenarios.tell")
