import pickle

import pytest

from dyn_numerics import RootStatus, Status


@pytest.mark.parametrize("status", Status)
def test_codes_decode(status):
    assert Status.from_code(status.code) is status
    assert pickle.loads(pickle.dumps(status)) is status


def test_codes_are_distinct_and_only_an_end_that_was_meant_succeeds():
    assert len({status.code for status in Status}) == len(Status)
    assert [status for status in Status if status.is_success] == [Status.SUCCESS, Status.EVENT]
    assert Status.SUCCESS.code == 0


@pytest.mark.parametrize("code", [-1, 17])
def test_unknown_code(code):
    with pytest.raises(
        ValueError, match=rf"code: got {code}, expected one of \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\]"
    ):
        Status.from_code(code)


@pytest.mark.parametrize("status", Status)
def test_members_read_as_sentences_with_a_remedy(status):
    assert str(status).startswith(status.sentence)
    assert str(status).endswith(".")
    assert bool(status.remedy) != status.is_success
    assert status.remedy in str(status)


def test_lists_of_members_are_short():
    assert repr([Status.SUCCESS, RootStatus.ROUNDING]) == "[Status.SUCCESS, RootStatus.ROUNDING]"


def test_remedies_say_what_to_do():
    assert "Raise max_steps" in Status.MAX_STEPS.remedy
    assert "end t_span before it" in Status.STEP_UNDERFLOW.remedy
    assert "divisions by zero" in Status.NON_FINITE.remedy
    assert "solver='rodas5p' or 'auto'" in Status.STIFFNESS_SUSPECTED.remedy
    assert "Solve up to the jump" in Status.DISCONTINUITY_SUSPECTED.remedy
