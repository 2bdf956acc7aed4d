"""How good a model is: Dice by kind of prompt, and clicks until an outline is right."""
