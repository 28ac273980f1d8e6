"""Moving an instance to another host.

Both hosts keep with the domain what they are doing, so that either can end a migration that was
cut off. The destination defines the domain at once, switched off; libvirt moves the guest into
that definition; the source keeps its own until the guest is known to be there. Modules, in the
order of their use: offer and check (may it?), prepare (destination), run with converge (source),
finish and roll-back, recover (what a crash has left).
"""
