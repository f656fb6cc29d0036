"""What artifacts are judged by: routed requests with cost and outcome, and labels of their answers."""
