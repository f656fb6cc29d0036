"""From logits to tokens: bias, penalties, what a grammar allows, cuts, draws, logprobs; pure functions of tensors."""
