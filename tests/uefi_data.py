"""EC2's UefiData, read and made by AWS's own tool for it."""

from pyuefivars import AWSUEFIVarStore, UEFIVar, UEFIVarStore, globalEfiGUID


def made(variables):
    """Of the platform's variables by their names: attributes and data."""
    store = UEFIVarStore()
    store.vars = [UEFIVar(name, data, globalEfiGUID, attributes) for name, (attributes, data) in variables.items()]
    store.__class__ = AWSUEFIVarStore
    return str(store)


def read(text):
    return {variable.name: (variable.attr, variable.data) for variable in AWSUEFIVarStore(text).vars}
