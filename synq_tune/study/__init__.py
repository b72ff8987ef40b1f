"""The ledger of a study and what is derived from it: state, summary, status."""
