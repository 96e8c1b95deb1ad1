"""D³-RSMDE: config, data, tasks, builders and runs of both stages."""
