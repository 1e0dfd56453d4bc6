"""What other libraries do not promise to keep: their private names stand here and nowhere else.

A module for each library, imported by its own name, as each loads another heavy one. `tests/_compat` holds what this
package takes for granted of each name, so that a release that changes one fails there, by name.
"""
