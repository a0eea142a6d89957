"""The experiment on functions that a QP layer can be: values and gradients beside closed forms."""

import pytest
import torch

from experiments.relu import identities, run

RIGHT = [name for name in identities.IDENTITIES if "text" not in name]
TEXT = "max of three, the text's z^2"


@pytest.mark.parametrize("name", RIGHT)
def test_qp_has_the_values_and_gradients_of_the_closed_form(name):
    record = run.execute(run.Run(name, samples=200))
    assert record["value_error"] < 1e-12
    assert record["gradient_error"] < 1e-12


def test_text_of_the_paper_is_wrong_only_where_the_maximum_is_negative():
    generator = torch.Generator().manual_seed(3)
    x, a = identities.IDENTITIES[TEXT].inputs(generator, 500)
    truth, text = identities.largest(x, a), identities.largest_by_square(x, a)
    assert (truth < 0).sum() > 10
    torch.testing.assert_close(text, truth.clamp(min=0.0), atol=1e-9, rtol=0)


def test_network_trains_as_with_relu():
    record = run.execute(run.Run(run.TRAINING, samples=100))
    assert record["last_loss"] < 0.3 * record["first_loss"]
    assert record["value_error"] < 1e-9
    assert record["loss_error"] < 1e-9


def test_results_become_table_and_figure(tmp_path):
    records = [run.execute(r) for r in run.grid(samples=20)]
    assert "| ReLU, rows | 20 |" in run.table(records)
    run.draw(tmp_path / "functions.png")
    assert (tmp_path / "functions.png").stat().st_size > 10_000
