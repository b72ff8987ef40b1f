"""What a page shows beyond the ledger: measured on a study's networks and images, one file each."""
