"""The registry of campaigns by name."""

from __future__ import annotations

from tasks.registry import Entry, Registry

CAMPAIGNS = Registry(
    "campaigns",
    {
        "deletion": Entry(
            "orchestrator.campaigns.deletion.campaign:Deletion",
            "remove the top k proponents and opponents, retrain, measure: deletion curves and AUC-DEL",
            "Yeh et al. 2022, section 2.2",
        ),
        "leave_one_out": Entry(
            "orchestrator.campaigns.leave_one_out.campaign:LeaveOneOut",
            "retrain without each point; correlate measured with predicted influence, per query and class",
            "Koh & Liang 2017, section 4.2; Silva et al. 2022, section 4.1",
        ),
        "mislabels": Entry(
            "orchestrator.campaigns.mislabels.campaign:Mislabels",
            "train repeatedly, cluster the examples that stay misclassified by influence; retrieval of mislabeled examples",
            "Yeh et al. 2022, appendix A; Pruthi et al. 2020, section 4.1",
        ),
        "debias": Entry(
            "orchestrator.campaigns.debias.campaign:Debias",
            "fine-tune word vectors on the sentences that amplify or mitigate an association, and measure it again",
            "Silva et al. 2022, section 4.4",
        ),
        "lds": Entry(
            "orchestrator.campaigns.lds.campaign:Lds",
            "retrain on random subsets; correlate their measurements with summed scores: linear datamodelling score",
            "Park et al. 2023, section 3",
        ),
        "recipe_grid": Entry(
            "orchestrator.campaigns.recipe_grid.campaign:RecipeGrid",
            "recipes x hyper-parameters x seeds: settings chosen on dev, accuracy on test against a baseline",
            "Han & Tsvetkov 2021, section 6",
        ),
    },
)
