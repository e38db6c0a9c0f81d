"""lmdissect: what did finetuning change in a language model, knowledge or only a preference for a topic and a style?"""

__version__ = "0.1.0"
