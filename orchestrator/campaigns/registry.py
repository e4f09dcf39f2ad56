"""Campaigns by name."""

from __future__ import annotations

from tasks.registry import Entry, Registry

CAMPAIGNS = Registry(
    "campaigns",
    {
        "deletion": Entry(
            "orchestrator.campaigns.deletion:Deletion",
            "remove the top k proponents and opponents, retrain, measure: deletion curves and AUC-DEL",
            "Yeh et al. 2022, section 2.2",
        ),
    },
)
