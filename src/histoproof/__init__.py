"""A PatchCamelyon pipeline whose every number can be proven.

Each command of the program is one function, in the module of its name:

    from histoproof.data.synth import synth
    from histoproof.data.pack import pack
    from histoproof.train import resume, train
    from histoproof.evaluate import evaluate
    from histoproof.predict import predict
    from histoproof.journal import journal
"""

__version__ = "0.1.0"
