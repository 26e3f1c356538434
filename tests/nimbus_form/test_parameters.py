from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.nimbus.form import interface
from sam2_fewshot.nimbus.parameters import ConnectTo, DatasetSize, Request, read_parameters
from sam2_fewshot.records import Location
from sam2_fewshot.settings import Settings

CHECKPOINTS = ["sam2.1_hiera_base_plus.pt", "sam2.1_hiera_tiny.pt", "sam2.1_hiera_micro.pt"]
SIZE = DatasetSize(xy=3, z=2, time=4, channels=2)


def read(raw: dict[str, Any]) -> Request:
    return read_parameters(raw, CHECKPOINTS)


def with_form(**values: Any) -> Request:
    """Read a job whose form has these values; ``_`` stands for a blank in a name."""
    form = {name.replace("_", " "): value for name, value in values.items()}
    return read({"workerInterface": {"Training Tag": ["cell"], **form}})


def test_a_job_of_the_browser(job):
    request = read(job)
    assert request == Request(
        settings=Settings(similarity_threshold=0.55),
        model="sam2.1_hiera_tiny.pt",
        training_tags=("cell",),
        output_tags=("found",),
        channel=1,
        tile=Location(1, 0, 2),
        assignment=Location(1, 0, 2),
        batch=("1-2", "", "all"),
        tool="0b6c5b53-7c9b-4c2a-9a5e-3f5b64a8c111",
    )
    assert request.locations(SIZE) == [Location(xy, 0, time) for xy in (0, 1) for time in range(4)]


@pytest.mark.parametrize(
    "raw",
    [
        {},
        dict.fromkeys(("tags", "tile", "assignment", "channel", "connectTo", "scales", "id", "image")),
        {"tags": [], "tile": {}, "connectTo": {}, "channel": ""},
        {"tile": {"XY": None}, "connectTo": {"tags": None}},
    ],
    ids=["missing", "null", "empty", "half"],
)
def test_whatever_may_be_missing(raw):
    request = read({**raw, "workerInterface": {"Training Tag": ["cell"]}})
    assert request == Request(Settings(), "sam2.1_hiera_base_plus.pt", ("cell",))
    assert request.locations(SIZE) == [Location(0, 0, 0)]
    assert request.result_channel(SIZE) == 0


def test_the_forms_own_defaults_are_the_settings_own():
    form = {name: field["default"] for name, field in interface(CHECKPOINTS).items() if "default" in field}
    assert read({"workerInterface": {**form, "Training Tag": ["cell"]}}).settings == Settings()


def test_values_that_the_browser_sends_for_untouched_fields():
    blank: dict[str, Any] = {"number": 0, "text": "", "tags": [], "checkbox": False, "notes": ""}
    form = {name: field.get("default", blank.get(field["type"])) for name, field in interface(CHECKPOINTS).items()}
    assert read({"workerInterface": {**form, "Training Tag": ["cell"]}}) == with_form()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0.6", 0.6), (" .6 ", 0.6), ("6e-1", 0.6), (1, 1.0), ("1", 1.0), ("", 0.5), (None, 0.5), ("  ", 0.5)],
)
def test_a_number_may_come_as_text_or_not_at_all(value, expected):
    assert with_form(Similarity_Threshold=value).settings.similarity_threshold == expected


def test_zeros_without_end_are_a_zero():
    assert with_form(Similarity_Threshold="0" * 400).settings.similarity_threshold == 0


@pytest.mark.parametrize("value", ["128", 128, 128.0, "128.0", " 128"])
def test_a_whole_number(value):
    points = with_form(Points_per_side=value).settings.points_per_side
    assert points == 128
    assert isinstance(points, int)


@pytest.mark.parametrize(
    ("title", "value", "said"),
    [
        ("Similarity Threshold", 1.5, "1.5.*from 0 to 1"),
        ("Similarity Threshold", "-1", "-1.*from 0 to 1"),
        ("Similarity Threshold", "0,5", "'0,5'.*from 0 to 1, with a point before decimals; the default is 0.5"),
        ("Similarity Threshold", "high", "'high'.*number"),
        ("Similarity Threshold", "nan", "nan.*number"),
        ("Similarity Threshold", float("nan"), "nan.*number"),
        ("Similarity Threshold", float("inf"), "inf.*number"),
        ("Similarity Threshold", "1e999", "inf.*number"),
        ("Similarity Threshold", True, "True.*number"),
        ("Similarity Threshold", [0.5], r"\[0.5\].*number"),
        ("Similarity Threshold", {"value": 1}, "{'value': 1}.*number"),
        ("Points per side", 8, "8.*from 16 to 256"),
        ("Points per side", "64.5", "64.5.*whole number"),
        ("Points per side", 10**30, "10000.*number"),
        ("Min Mask Area", -1, "-1.*at least 0"),
        ("Min Mask Area", 2 * 10**9, "2000000000.*to 1e"),
        ("Stability Gate", "2", "2.*from 0 to 1"),
    ],
)
def test_a_number_that_cannot_be(title, value, said):
    with pytest.raises(SettingsError, match=rf"^{title}.*is {said}") as caught:
        read({"workerInterface": {"Training Tag": ["cell"], title: value}})
    assert len(str(caught.value)) < 250


def test_values_that_do_not_fit_together():
    with pytest.raises(SettingsError, match=r"Max Mask Area is 20 px.*Min Mask Area \(30 px\)"):
        with_form(Max_Mask_Area="20")


def test_left_to_the_program():
    assert with_form(Stability_Gate="").settings.stability_gate is None
    assert with_form(Stability_Gate="0.9").settings.stability_gate == 0.9


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is empty"),
        ("", "is empty"),
        ("tiny", "is 'tiny', which"),
        ("sam2.1_hiera_large.pt", "is 'sam2.1_hiera_large.pt', which"),
        (3, "is 3, which"),
        (["sam2.1_hiera_tiny.pt"], r"is \['sam2"),
        ("x" * 5000, "is 'xxx"),
    ],
)
def test_a_model_is_never_replaced(value, said):
    with pytest.raises(
        SettingsError, match=rf"^Model {said}.*save the tool; there are: .*sam2.1_hiera_micro.pt\."
    ) as caught:
        with_form(Model=value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, "", "fast", 1])
def test_another_select_is_never_replaced(value):
    with pytest.raises(SettingsError, match=r"^Method .*Choose again.*there are: guided, grid"):
        with_form(Method=value)


def test_a_select_that_the_saved_tool_does_not_have_yet():
    assert with_form().settings.method == "guided"
    assert with_form(Method="grid").settings.method == "grid"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(["a", "b"], ("a", "b")), ("a", ("a",)), (["a", "a", "", " "], ("a",)), ([" a"], (" a",))],
)
def test_tags(value, expected):
    request = read({"workerInterface": {"Training Tag": value}, "tags": value})
    assert request.training_tags == request.output_tags == expected


@pytest.mark.parametrize("value", [None, [], "", [""]])
def test_no_training_tag(value):
    with pytest.raises(SettingsError, match=r"^Training Tag is empty.*5 to 20"):
        with_form(Training_Tag=value)


@pytest.mark.parametrize("raw", [{}, {"workerInterface": None}])
def test_no_form_at_all(raw):
    with pytest.raises(SettingsError, match=r"^Training Tag is empty"):
        read(raw)


@pytest.mark.parametrize("value", [3, {"tags": ["a"]}, [1], [None], ["a", ["b"]]])
@pytest.mark.parametrize("title", ["Training Tag", "Negative Tag"])
def test_what_is_no_tag(title, value):
    with pytest.raises(SettingsError, match=rf"^{title} is .*list of tags"):
        read({"workerInterface": {"Training Tag": ["cell"], title: value}})


def test_an_example_cannot_be_both():
    with pytest.raises(SettingsError, match="'cell' is given as Training Tag and as Negative Tag"):
        with_form(Negative_Tag=["debris", "cell"])


def test_results_that_a_later_run_would_learn_from_are_told():
    request = read({"workerInterface": {"Training Tag": ["cell"], "Negative Tag": ["no"]}, "tags": ["no", "cell"]})
    assert len(request.remarks) == 2
    assert "'cell', which is also the Training Tag" in request.remarks[0]
    assert "'no', which is also the Negative Tag" in request.remarks[1]


def test_values_of_another_version_are_told():
    (remark,) = with_form(Mode="soft", **{f"Old_{number}": 1 for number in range(9)}).remarks
    assert "'Mode', 'Old 0', 'Old 1', 'Old 2', 'Old 3', …" in remark


def test_a_setting_of_files_of_results_is_told_to_have_no_effect():
    request = with_form(**{"Leave Out Examples": True})
    assert request.settings == with_form().settings
    (remark,) = request.remarks
    assert "they have no effect: 'Leave Out Examples'." in remark


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [2]),
        (None, [2]),
        ("  ", [2]),
        (" , ,", [2]),
        ("\u3000", [2]),
        ("\xa0, ", [2]),
        ("all", [0, 1, 2, 3]),
        (" ALL ", [0, 1, 2, 3]),
        ("2, 1", [0, 1]),
        ("1,1,2", [0, 1]),
        ("1-3", [0, 1, 2]),
        ("1-2, 4", [0, 1, 3]),
        ("1-4:2", [0, 2]),
        ("all:3", [0, 3]),
        ("2,,3,", [1, 2]),
        (3, [2]),
    ],
)
def test_ranges(job, text, expected):
    job["workerInterface"] |= {"Batch XY": "1", "Batch Time": text}
    assert [location.time for location in read(job).locations(SIZE)] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "'0' does not exist; 1-4"),
        ("5", "'5' does not exist; 1-4"),
        ("3-9", "'3-9' does not exist; 1-4"),
        ("3-1", "'3-1' runs backwards"),
        ("1-", "'1-' is not a number or a range"),
        ("1;2", "'1;2' is not"),
        ("one", "'one' is not"),
        ("9" * 5000, "does not exist"),
    ],
)
def test_ranges_that_cannot_be(job, text, said):
    job["workerInterface"]["Batch Time"] = text
    with pytest.raises(SettingsError, match=rf"^Batch Time: .*{said}") as caught:
        read(job).locations(SIZE)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [1.5, True, [1], {"all": True}])
def test_what_is_no_range(job, value):
    job["workerInterface"]["Batch Z"] = value
    with pytest.raises(SettingsError, match=r"^Batch Z is .*text like '1-3, 5'"):
        read(job)


def test_the_order_is_position_slice_time(job):
    job["workerInterface"] |= {"Batch XY": "3,1", "Batch Z": "all", "Batch Time": "2-3"}
    expected = [Location(xy, z, time) for xy in (0, 2) for z in (0, 1) for time in (1, 2)]
    assert read(job).locations(SIZE) == expected


def test_a_current_position_that_is_gone(job):
    job["workerInterface"]["Batch XY"] = ""
    job["tile"] = {"XY": 4, "Z": 0, "Time": 0}
    with pytest.raises(SettingsError, match=r"^Batch XY is empty.* 5; but 1-3 is valid"):
        read(job).locations(SIZE)
    with pytest.raises(SettingsError, match=r"but only 1 is valid"):
        read(job).locations(DatasetSize())


def test_a_position_as_text_or_float(job):
    job["tile"] = {"XY": "1", "Z": 0.0, "Time": 2}
    assert read(job).tile == Location(1, 0, 2)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tile", 3, "tile is 3"),
        ("tile", {"XY": -1}, "tile XY is -1"),
        ("tile", {"Z": 0.5}, "tile Z is 0.5"),
        ("assignment", {"Time": "0-2"}, "assignment Time is '0-2', .*Batch fields"),
        ("channel", -1, "channel is -1"),
        ("channel", "DAPI", "channel is 'DAPI'"),
        ("channel", False, "channel is False"),
        ("connectTo", ["cell"], r"connectTo is \['cell'\]"),
        ("connectTo", {"tags": 3}, "connectTo tags is 3"),
        ("connectTo", {"tags": ["a"], "channel": "x"}, "connectTo channel is 'x'"),
        ("tags", {"tags": ["a"], "exclusive": False}, "tags is "),
        ("workerInterface", [], r"workerInterface is \[\]"),
        ("workerInterface", "x", "workerInterface is 'x'"),
    ],
)
def test_what_is_of_another_shape(job, field, value, said):
    with pytest.raises(SettingsError, match=f"^{said}"):
        read({**job, field: value})


def test_a_frame_assigned_elsewhere_is_told(job):
    job["assignment"] = {"XY": 0, "Z": 1, "Time": 2}
    (remark,) = read(job).remarks
    assert "assigned to XY 1, Z 2, Time 3 but posted from XY 2, Z 1, Time 3" in remark
    job["workerInterface"]["Batch Z"] = "all"
    assert not read(job).remarks


def test_the_channel_of_the_results(job):
    assert read(job).result_channel(SIZE) == 1
    assert read({**job, "channel": "0"}).result_channel(SIZE) == 0
    with pytest.raises(SettingsError, match="channel 3, but this dataset has 2"):
        read({**job, "channel": 2}).result_channel(SIZE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"tags": ["cell"], "channel": 0}, ConnectTo(("cell",), 0)),
        ({"tags": ["cell"], "channel": None}, ConnectTo(("cell",))),
        ({"tags": ["cell"]}, ConnectTo(("cell",))),
        ({"tags": [], "channel": 1}, None),
    ],
)
def test_connecting(job, value, expected):
    assert read({**job, "connectTo": value}).connect_to == expected


texts = st.text(alphabet="ab 019,.-\n\x00é", max_size=6)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    form=st.dictionaries(st.sampled_from(sorted(interface(CHECKPOINTS))), anything, max_size=4),
    raw=st.dictionaries(st.sampled_from(["tags", "tile", "assignment", "channel", "connectTo"]), anything, max_size=3),
)
def test_anything_is_read_or_refused_in_a_sentence(form, raw):
    try:
        request = read({**raw, "workerInterface": {"Training Tag": ["cell"], **form}})
        request.locations(SIZE)
        request.result_channel(SIZE)
    except SettingsError as error:
        said = str(error)
    else:
        said = "Done."
    assert said.endswith(".")
    assert len(said) < 600
