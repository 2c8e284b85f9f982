"""The method: Scan → Localize → Diagnose → Treat → Verify, each a function from frozen results to one.

The functions are reached as ``suture.scan`` and so on; here they live in modules of the same names, so this
package binds none of them.
"""
