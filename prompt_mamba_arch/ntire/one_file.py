"""Makes one Python file of a class or function and all that it needs of its package.

The sources are followed from name to name, as Python would: from a definition to the names that it uses, from an import
to the module that defines them. What is needed is taken over as it is written, with its comments; what is not, is left
out. Two definitions of one name get different names; `module.name` becomes a plain name.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["flatten"]


class Symbol(NamedTuple):
    """A definition at the top of a module."""

    module: str
    name: str


class External(NamedTuple):
    """An import from elsewhere: `from source import name as alias`; without a name `import source as alias`."""

    source: str
    name: str | None
    alias: str


class Use(NamedTuple):
    """Where a statement uses a name from outside of it. The path is one name, or `module.name` in two."""

    node: ast.expr
    path: tuple[str, ...]
    shadowed: frozenset[str]
    """The local names there."""
    in_text: bool
    """Within an f-string, where Python before 3.12 does not say at which column."""


def flatten(
    module: str, name: str, replace: Mapping[str, str] | None = None, reserved: Collection[str] = ()
) -> tuple[str, str]:
    """The source of a file that has `name` and whatever it needs; it imports nothing of the package.

    Args:
        module: "package.module", where `name` is defined.
        replace: definitions ("package.module.name") that others shall stand in for; so, too, for functions of other
            packages where they are used as `module.name`.
        reserved: names that nothing in the file may have.

    Returns:
        The source, and what `name` is called there.

    Raises:
        ValueError: the sources have a form that cannot be followed (star imports, imports within functions, names
            defined under conditions); says where.
    """
    return _Flattener(module.partition(".")[0], replace or {}, reserved).file(Symbol(module, name))


class _Flattener:
    def __init__(self, package: str, replace: Mapping[str, str], reserved: Collection[str]):
        self._package = package
        self._reserved = frozenset(reserved)
        self._replace = {_symbol(old): _symbol(new) for old, new in replace.items()}
        self._modules: dict[str, _Module] = {}
        self._needed: dict[Symbol, list[tuple[Use, Symbol]]] = {}
        self._externals: set[External] = set()

    def file(self, wanted: Symbol) -> tuple[str, str]:
        wanted = self._defined(wanted)
        self._need(wanted)
        names = self._names()
        parts = []
        for module in self._order():
            texts = [self._text(symbol, names) for symbol in self._in_source_order(module)]
            parts.append("\n\n\n".join([self._modules[module].heading(), *texts]))
        source = "\n\n\n".join([self._imports(names), *parts]) + "\n"
        _check(source)
        return source, names[wanted]

    # -- what is needed

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _Module(name)
        return self._modules[name]

    def _need(self, symbol: Symbol) -> None:
        if symbol in self._needed:
            return
        uses = self._needed[symbol] = []
        module = self._module(symbol.module)
        for use in _uses(module.stripped(symbol.name)):
            found = self._replaced(symbol.module, use.path)
            if found is None:
                if len(use.path) > 1 and not isinstance(self._lookup(symbol.module, use.path[0]), str):
                    use = use._replace(node=use.node.value, path=use.path[:1])  # an attribute of what is no module
                found = self._resolve(symbol.module, use.path)
            if isinstance(found, External):
                self._externals.add(found)
            elif found is not None:
                uses.append((use, found))
                self._need(found)

    def _replaced(self, module: str, path: tuple[str, ...]) -> Symbol | None:
        """What stands in for a function of a module from elsewhere, as `F.softmax`."""
        outside = self._lookup(module, path[0]) if len(path) > 1 else None
        if not isinstance(outside, External):
            return None
        whole = outside.source if outside.name is None else f"{outside.source}.{outside.name}"
        return self._replace.get(Symbol(whole, path[1]))

    def _resolve(self, module: str, path: tuple[str, ...]) -> Symbol | External | None:
        """What a path means in a module; None for Python's own names."""
        first = path[0]
        found = self._lookup(module, first)
        if isinstance(found, str):  # a module of the package
            if len(path) == 1:
                raise ValueError(f"{module} uses the module {found} itself, which cannot be taken over")
            return self._defined(Symbol(found, path[1]))
        if found is None and not hasattr(builtins, first):
            raise ValueError(f"{module} uses {first!r}, which is not defined at its top")
        return found

    def _defined(self, symbol: Symbol) -> Symbol:
        found = self._lookup(symbol.module, symbol.name)
        if not isinstance(found, Symbol):
            raise ValueError(f"{symbol.module} does not define {symbol.name!r}")
        return found

    def _lookup(self, module: str, name: str) -> Symbol | External | str | None:
        """What a name at the top of a module stands for; a text is a module of the package."""
        here = self._module(module)
        if Symbol(module, name) in self._replace:
            return self._defined(self._replace[Symbol(module, name)])
        if name in here.definitions:
            return Symbol(module, name)
        if name not in here.imports:
            return None
        given = here.imports[name]
        if given.source.partition(".")[0] != self._package:
            return given
        if given.name is None:
            raise ValueError(f"{module}: 'import {given.source}' cannot be followed; import from it")
        inner = None if _origin(given.source) is None else self._lookup(given.source, given.name)
        if inner is not None:
            return inner
        whole = f"{given.source}.{given.name}"
        if _origin(whole) is None:
            raise ValueError(f"{module} imports {given.name!r}, which {given.source} does not define")
        return whole

    # -- how it is written

    def _names(self) -> dict[Symbol, str]:
        """Different names for all; those that are used as `module.name` get both in one."""
        taken = {external.alias for external in self._externals} | self._reserved
        words = {word for module in self._modules.values() for word in module.words}
        names: dict[Symbol, str] = {}
        qualified = {found for uses in self._needed.values() for use, found in uses if len(use.path) > 1}
        for symbol in sorted(self._needed, key=lambda symbol: symbol in qualified):
            name = symbol.name
            if name in taken or symbol in qualified:
                private = "_" if name.startswith("_") else ""
                name = f"{private}{symbol.module.rpartition('.')[2]}_{name.lstrip('_')}"
                while name in taken or name in words:
                    name += "_"
            taken.add(name)
            names[symbol] = name
        return names

    def _text(self, symbol: Symbol, names: Mapping[Symbol, str]) -> str:
        module = self._modules[symbol.module]
        edits = {}
        for use, found in self._needed[symbol]:
            new = names[found]
            if (new,) == use.path:
                continue
            if use.in_text or new in use.shadowed:
                raise ValueError(f"{symbol.module}, {symbol.name}: {'.'.join(use.path)} cannot be called {new} there")
            edits[_span(use.node)] = new
        if names[symbol] != symbol.name:
            edits[module.span_of_name(symbol.name)] = names[symbol]
        return module.text(symbol.name, edits)

    def _order(self) -> list[str]:
        """The modules, each after those that it imports from."""
        done: list[str] = []

        def add(module: str, above: tuple[str, ...]) -> None:
            if module in above:
                raise ValueError(f"{' imports '.join((*above, module))}: that is a circle")
            if module in done:
                return
            for symbol, uses in self._needed.items():
                for _, found in uses if symbol.module == module else ():
                    if found.module != module:
                        add(found.module, (*above, module))
            done.append(module)

        for symbol in self._needed:
            add(symbol.module, ())
        return done

    def _in_source_order(self, module: str) -> list[Symbol]:
        symbols = [symbol for symbol in self._needed if symbol.module == module]
        return sorted(symbols, key=lambda symbol: self._modules[module].definitions[symbol.name].lineno)

    def _imports(self, names: Mapping[Symbol, str]) -> str:
        aliases: dict[str, External] = {}
        for external in self._externals:
            if aliases.setdefault(external.alias, external) != external:
                raise ValueError(f"{external} and {aliases[external.alias]} have the same name")
        lines: dict[bool, list[str]] = {False: [], True: []}  # Python's own, and others
        for e in sorted((e for e in self._externals if e.name is None), key=lambda e: e.source):
            lines[_is_foreign(e.source)].append(f"import {e.source}" + f" as {e.alias}" * (e.alias != e.source))
        for source in sorted({e.source for e in self._externals if e.name is not None}):
            found = sorted((e.name, e.alias) for e in self._externals if e.name is not None and e.source == source)
            listed = ", ".join(name + f" as {alias}" * (alias != name) for name, alias in found)
            lines[_is_foreign(source)].append(f"from {source} import {listed}")
        return "\n".join(["from __future__ import annotations", "", *lines[False], "", *lines[True]])


class _Module:
    """The source of a module.

    Attributes:
        definitions: name -> the statement that defines it.
        imports: name -> what it was imported as.
        words: all names that occur.
    """

    def __init__(self, name: str):
        path = _origin(name)
        if path is None:
            raise ValueError(f"there is no module {name}")
        self.name = name
        source = path.read_text(encoding="utf-8")
        self._lines = source.encode("utf-8").split(b"\n")  # ast counts bytes
        self._tree = ast.parse(source)
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, External] = {}
        self.words = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}
        self.words |= {node.arg for node in ast.walk(self._tree) if isinstance(node, ast.arg)}
        for statement in self._tree.body:
            self._take(statement)

    def _take(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            self._define(statement.name, statement)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                for node in ast.walk(target):
                    if isinstance(node, ast.Name):
                        self._define(node.id, statement)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            self._define(statement.target.id, statement)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                name = alias.asname or alias.name.partition(".")[0]
                self.imports[name] = External(alias.name if alias.asname else name, None, name)
        elif isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            if statement.level or statement.names[0].name == "*":
                raise ValueError(f"{self.name}, line {statement.lineno}: such an import cannot be followed")
            for alias in statement.names:
                self.imports[alias.asname or alias.name] = External(
                    statement.module, alias.name, alias.asname or alias.name
                )

    def _define(self, name: str, statement: ast.stmt) -> None:
        if name in self.definitions:
            raise ValueError(f"{self.name}, line {statement.lineno}: {name} is defined twice")
        self.definitions[name] = statement

    def heading(self) -> str:
        """The module's own description, as a comment."""
        text = ast.get_docstring(self._tree) or ""
        title = f"# ---- {self.name.rpartition('.')[2]} "
        return "\n".join([title + "-" * (120 - len(title)), "#", *(f"# {line}".rstrip() for line in text.split("\n"))])

    def stripped(self, name: str) -> ast.stmt:
        """The statement without the decorators that register it somewhere."""
        statement = self.definitions[name]
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            statement.decorator_list = [d for d in statement.decorator_list if not _registers(d)]
        return statement

    def text(self, name: str, edits: Mapping[tuple, str]) -> str:
        """The source of a definition, with the comment above it; edits: span -> new text."""
        statement = self.stripped(name)
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)]) - 1
        lines = list(self._lines)
        for (row, start, end), new in sorted(edits.items(), reverse=True):
            lines[row - 1] = lines[row - 1][:start] + new.encode("utf-8") + lines[row - 1][end:]
        above = first
        while above and lines[above - 1].startswith(b"# ") and not lines[above - 1].startswith(b"# ---"):
            above -= 1
        return b"\n".join(lines[above : statement.end_lineno]).decode("utf-8")

    def span_of_name(self, name: str) -> tuple[int, int, int]:
        """Where a definition says its name."""
        statement = self.definitions[name]
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            word = b"class " if isinstance(statement, ast.ClassDef) else b"def "
            start = statement.col_offset + len(word)
            return statement.lineno, start, start + len(name.encode("utf-8"))
        return next(_span(n) for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == name)


class _Uses(ast.NodeVisitor):
    """Finds the names that a statement takes from outside of it, scope by scope, as Python does."""

    def __init__(self):
        self.found: list[Use] = []
        self._scopes: list[tuple[frozenset[str], bool]] = []  # local names, and whether it is a class's
        self._in_text = False

    def _locals(self) -> frozenset[str]:
        """A class's names are seen in its body, but not in its methods."""
        inner = len(self._scopes) - 1
        sets = [names for n, (names, is_class) in enumerate(self._scopes) if not is_class or n == inner]
        return frozenset().union(*sets)

    def _add(self, node: ast.expr, path: tuple[str, ...]) -> None:
        shadowed = self._locals()
        if path[0] not in shadowed:
            self.found.append(Use(node, path, shadowed, self._in_text))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._add(node, (node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load):
            self._add(node, (node.value.id, node.attr))
        else:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        before, self._in_text = self._in_text, True
        self.generic_visit(node)
        self._in_text = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for outside in (*node.decorator_list, *_of_arguments(node.args), node.returns):
            if outside is not None:
                self.visit(outside)
        self._within(_arguments(node.args) | _stored(node.body), False, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for outside in _of_arguments(node.args):
            self.visit(outside)
        self._within(_arguments(node.args), False, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for outside in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outside)
        self._within(_stored(node.body), True, node.body)

    def _comprehension(self, node) -> None:
        self.visit(node.generators[0].iter)
        names = frozenset(n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name))
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner = [part for n, g in enumerate(node.generators) for part in (*([g.iter] if n else []), *g.ifs)]
        self._within(names, False, [*inner, *parts])

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def _within(self, names: frozenset[str], is_class: bool, parts: list) -> None:
        self._scopes.append((names, is_class))
        for part in parts:
            self.visit(part)
        self._scopes.pop()

    def _refuse(self, node: ast.stmt) -> None:
        raise ValueError(f"line {node.lineno}: {type(node).__name__} within a definition cannot be followed")

    visit_ImportFrom = visit_Import = visit_Global = visit_AsyncFunctionDef = _refuse


def _uses(statement: ast.stmt) -> list[Use]:
    visitor = _Uses()
    visitor.visit(statement)
    return visitor.found


def _arguments(arguments: ast.arguments) -> frozenset[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return frozenset(argument.arg for argument in every if argument is not None)


def _of_arguments(arguments: ast.arguments) -> Iterator[ast.expr]:
    """Defaults and annotations, which belong to the scope around."""
    yield from (default for default in (*arguments.defaults, *arguments.kw_defaults) if default is not None)
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    yield from (argument.annotation for argument in every if argument is not None and argument.annotation is not None)


def _stored(body: list[ast.stmt]) -> frozenset[str]:
    """The names that statements bind in their own scope."""
    names: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            return
        if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            names.update(n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
            return
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        if isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        for child in ast.iter_child_nodes(node):
            walk(child)

    for statement in body:
        walk(statement)
    return frozenset(names)


def _registers(decorator: ast.expr) -> bool:
    """Whether it is one of BasicSR's `@…_REGISTRY.register()`."""
    return any(isinstance(node, ast.Name) and node.id.endswith("_REGISTRY") for node in ast.walk(decorator))


def _span(node: ast.expr) -> tuple[int, int, int]:
    if node.lineno != node.end_lineno:
        raise ValueError(f"line {node.lineno}: a name over several lines cannot be changed")
    return node.lineno, node.col_offset, node.end_col_offset


def _is_foreign(module: str) -> bool:
    """Whether it is no part of Python; packages that people install lie in site-packages."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    return spec is not None and "-packages" in str(spec.origin)


def _origin(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return None if spec is None or spec.origin is None or not spec.origin.endswith(".py") else Path(spec.origin)


def _symbol(path: str) -> Symbol:
    module, _, name = path.rpartition(".")
    return Symbol(module, name)


def _check(source: str) -> None:
    """That every name is defined: above all, a check of the flattening itself."""
    tree = ast.parse(source)
    known = set(dir(builtins)) | {"__name__", "__file__"} | _stored(tree.body)
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            known.update((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    for statement in tree.body:
        if not isinstance(statement, (ast.Import, ast.ImportFrom)):
            for use in _uses(statement):
                if use.path[0] not in known:
                    raise ValueError(f"the flattened file uses {use.path[0]!r}, which nothing defines")
