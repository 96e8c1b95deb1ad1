"""What each stage of D³-RSMDE learns, seen from the training loop."""
