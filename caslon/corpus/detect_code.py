"""Which programming language a text is written in: turns its first characters into the name of a language, or into nothing.

Each language has signs, lines that hardly occur in prose. Enough of them decide by themselves; a file name such as `.c` only
lowers the number. Of several languages with signs the one with most wins, the name's own being given the benefit of doubt.
"""

import re
from dataclasses import dataclass

SAMPLE_CHARACTERS = 16_384
MIN_SIGNS = 4
MIN_SIGN_SHARE = 0.08  # of the lines that are not blank
MIN_CODE_LINE_SHARE = 0.3  # of lines that look like code in any language
SYMBOLS = "{}=_$#\\"
MIN_SYMBOL_SHARE = 0.008  # of characters; in prose they are one in ten thousand
MANY_SYMBOLS_SHARE = 0.03  # with a name that says code this is enough: minified code has one line and no signs
LEAD_OF_NAME = 0.15  # the language of the name stands unless another has seven times its signs
CODE_LINE = re.compile(
    r"^(?:.*[;{}()\],:>=\\]|\s*(?://|/\*|\*|\#|--|%).*|\s*[\w.]+\s*(?::=|[:=]|<-)\s.*|\s*(?:end|fi|done|else|do|local|import|use)\b.*)$",
    re.MULTILINE,
)
FILE_NAMES = {"makefile": "make", "gnumakefile": "make", "dockerfile": "docker", "cmakelists.txt": "cmake"}
SHEBANG = re.compile(r"#!\s*\S*?/(?:env\s+(?:-S\s+)?)?([a-zA-Z-]+)")


@dataclass(frozen=True)
class Language:
    """A language with the ends of its file names, the lines that show it, and its interpreters."""

    name: str
    suffixes: tuple[str, ...]
    signs: re.Pattern[str]
    interpreters: tuple[str, ...] = ()


def _language(name: str, suffixes: str, signs: str, interpreters: str = "") -> Language:
    """Return a language whose signs are written one a line, each to be found at the beginning of a line."""
    pattern = "|".join(sign.strip() for sign in signs.split("\n") if sign.strip())
    return Language(
        name, tuple(suffixes.split()), re.compile(rf"^[ \t]*(?:{pattern})", re.MULTILINE), tuple(interpreters.split())
    )


C_SIGNS = r"""
#\s*(?:include\s*[<"]|define\s+\w|ifn?def\s+\w|endif\b|pragma\s)
(?:static|extern|unsigned|const|void|int|char|struct|typedef|size_t|double|float|long)\s[^;\n]*[;{(,]\s*$
(?:return|goto)\b[^\n]*;\s*$
(?:if|for|while|switch)\s*\([^\n]*\{\s*$
"""
LANGUAGES = (
    _language("c", "c h", C_SIGNS),
    _language("cpp", "cc cpp cxx hpp hh hxx h", C_SIGNS + r"""
        namespace\s+\w|using\s+(?:namespace|std::)|template\s*<
        class\s+\w+[^\n]*[{:]?\s*$
        (?:public|private|protected):\s*$
        std::|\w+::\w+[^\n]*[;{]\s*$|auto\s+\w+\s*="""),
    _language("java", "java", r"""
        (?:package|import(?:\s+static)?)\s+[\w.*]+;
        (?:public|private|protected)\s+[^\n]*[;{]\s*$
        @Override\b|(?:final|abstract)\s+class\s"""),
    _language("csharp", "cs", r"""
        using\s+[\w.]+;|namespace\s+[\w.]+\s*[{;]?\s*$
        (?:public|private|internal|protected)\s[^\n]*(?:\{\s*get|[;{]?\s*$)
        \[\w+(?:\([^\n]*\))?\]\s*$|///\s*<"""),
    _language("javascript", "js mjs cjs jsx", r"""
        (?:const|let|var)\s+[\w{}\[\], $]+=
        (?:export\s+)?(?:async\s+)?function\b[^\n]*\{
        (?:import|export)\s[^\n]*(?:from\s+)?['"][^\n]*;?\s*$
        module\.exports\b|\}\);?\s*$|['"]use strict['"]
        \w+[^\n]*=>\s*[{(]
        (?:if|for|while)\s*\([^\n]*\{\s*$
        return\b[^\n]*;\s*$""", "node deno bun"),
    _language("typescript", "ts tsx mts", r"""
        (?:export\s+)?(?:interface|type|enum|abstract\sclass|declare)\s+\w+[^\n]*[={<]
        (?:const|let|var)\s+\w+\s*:\s*\w
        import\s+(?:type\s)?[^\n]*from\s+['"]
        (?:public|private|readonly)\s+\w+[^\n]*[:;{]
        (?:export\s+)?(?:async\s+)?function\s+\w+[^\n]*\)\s*:\s*\w""", "ts-node"),
    _language("go", "go", r"""
        package\s+\w+\s*$|import\s*(?:\(|")
        func\s+(?:\([^)\n]*\)\s*)?\w+\(
        type\s+\w+\s+(?:struct|interface)\b
        \w+(?:,\s*\w+)*\s*:=\s
        if\s+err\s*!=\s*nil|defer\s|var\s+\w+\s+[\w\[\]*.]+"""),
    _language("rust", "rs", r"""
        (?:pub(?:\([^)\n]*\))?\s+)?(?:fn\s+\w+|struct\s+\w+|enum\s+\w+|trait\s+\w+|mod\s+\w+|impl\b)
        use\s+[\w:{}, *]+;
        let\s+(?:mut\s+)?\w+[^\n]*[;{(]\s*$
        #!?\[\w+|match\s+[^\n]*\{\s*$|//[/!]\s"""),
    _language("ruby", "rb rake", r"""
        def\s+(?:self\.)?\w+[?!]?(?:\(|\s*$)
        end\s*$|require(?:_relative)?\s+['"]|module\s+[A-Z]\w*\s*$
        attr_(?:reader|writer|accessor)\s|class\s+[A-Z]\w*(?:\s*<\s*[\w:]+)?\s*$
        [^\n]*\bdo\s*\|[^|\n]*\|\s*$""", "ruby"),
    _language("php", "php phtml", r"""
        <\?php\b|\$\w+\s*(?:=|->)
        (?:(?:public|private|protected)\s+)?(?:static\s+)?function\s+\w+\([^\n]*
        namespace\s+[\w\\]+;|use\s+[\w\\]+;|echo\s[^\n]*;\s*$""", "php"),
    _language("perl", "pl pm", r"""
        use\s+(?:strict|warnings|[A-Z][\w:]*)[^\n]*;|(?:my|our|local)\s*[(\$@%]
        sub\s+\w+\s*\{?\s*$|package\s+[\w:]+;
        [^\n]*=~\s*[ms]?/|__(?:END|DATA)__""", "perl"),
    _language("shell", "sh bash zsh ksh", r"""
        (?:if|elif)\s+\[\[?\s|then\s*$|fi\s*$|done\s*$|esac\s*$
        (?:export\s+)?[A-Z_]+=\S*\s*$|echo\s+["'$-]
        \w+\(\)\s*\{\s*$|(?:for|while)\s[^\n]*;\s*do\s*$|set\s+-[a-z]+|case\s[^\n]*\sin\s*$
        [^\n]*\$\{\w+""", "sh bash zsh dash ksh"),
    _language("sql", "sql", r"""
        (?i:create\s+(?:or\s+replace\s+)?(?:table|view|index|function)\b|insert\s+into\s|select\s[^\n]*\bfrom\s)
        (?i:alter\s+table\s|drop\s+table\s|update\s+\w+\s+set\s|delete\s+from\s)|--\s"""),
    _language("kotlin", "kt kts", r"""
        (?:import|package)\s+\w+\.[\w.*]+\s*$
        (?:\w+\s+)*fun\s+[\w<>. ]+\(
        (?:private\s+|override\s+)?va[lr]\s+\w+\s*[:=]
        (?:data|sealed|open)\s+class\s+\w+|object\s+\w+\s*\{"""),
    _language("swift", "swift", r"""
        import\s+(?:Foundation|UIKit|SwiftUI|\w+Kit)\s*$
        (?:\w+\s+)*func\s+\w+[(<]
        (?:let|var)\s+\w+\s*:\s*\w[^\n;]*$|guard\s+let\b
        (?:public\s+|private\s+)?(?:struct|extension|protocol)\s+\w+[^\n]*\{\s*$"""),
    _language("scala", "scala sc", r"""
        (?:import|package)\s+\w+\.[\w.{}, =>_]+\s*$
        (?:\w+\s+)*def\s+\w+[^\n]*[={]\s*$
        (?:lazy\s+)?va[lr]\s+\w+[^\n;]*=
        (?:case\s+)?(?:class|object)\s+\w+[(\s]|trait\s+\w+|case\s[^\n]*=>"""),
    _language("lua", "lua", r"""
        local\s+(?:function\s+\w+|\w+(?:\s*,\s*\w+)*\s*=)
        function\s+[\w.:]+\([^\n{]*$
        end[,)]?\s*$|(?:else)?if\s[^\n]*\bthen\s*$|require\s*\(?['"]""", "lua"),
    _language("r", "r", r"""
        [\w.]+\s*<-\s|library\(|[\w.]+\s*=\s*function\(|[^\n]*%>%\s*$|#'\s""", "Rscript"),
    _language("haskell", "hs", r"""
        module\s+[A-Z][\w.]*|import\s+(?:qualified\s+)?[A-Z][\w.]*\b[^;\n]*$
        \w+\s*::\s|data\s+[A-Z]\w*\s*=|instance\s+[A-Z]|\{-#|type\s+[A-Z]\w*\s*="""),
    _language("css", "css scss less", r"""
        [.#@]?[\w\-.#:, >\[\]="*()]+\{\s*$|[\w-]+\s*:\s*[^;\n{]+;\s*$|@(?:media|import|font-face|mixin)\b"""),
    _language("tex", "tex sty cls", r"""
        \\(?:documentclass|begin|end|usepackage|section|subsection|newcommand|def|item|chapter)\b"""),
    _language("yaml", "yaml yml", r"""
        [\w.-]+:(?:\s|$)|-\s+\S|---\s*$|#\s"""),
    _language("toml", "toml", r"""
        \[\[?[\w."-]+\]\]?\s*$|[\w."-]+\s*=\s*["\[{\d tf]"""),
    _language("make", "mk", r"""
        [\w./%$()-]+\s*:(?!=)[^=\n]*$|\w+\s*[:?+]?=|\.PHONY\b|(?:ifeq|ifdef|endif|include)\b"""),
    _language("cmake", "cmake", r"""
        (?i:cmake_minimum_required|project|add_executable|add_library|target_\w+|set|find_package|if|endif)\s*\("""),
    _language("docker", "dockerfile", r"""
        (?:FROM|RUN|COPY|ADD|CMD|ENTRYPOINT|ENV|WORKDIR|EXPOSE|ARG|USER)\s+\S"""),
)  # fmt: skip
# Their lines are too much like prose, lists or each other to show a language without a name that says so.
NAMED_ONLY = frozenset(("yaml", "toml", "make", "docker", "cmake", "css", "r", "tex", "sql"))


def code_language(sample: str, name: str) -> str | None:
    """Return the language of source code, or None when the text does not look like code. Python is not among them."""
    sample = sample[:SAMPLE_CHARACTERS]
    shebang = SHEBANG.match(sample)
    if shebang:
        found = [language.name for language in LANGUAGES if shebang[1] in language.interpreters]
        if found:
            return found[0]
    lines = sum(1 for line in sample.split("\n") if line.strip())
    named = _named(name)
    symbols = sum(map(sample.count, SYMBOLS))
    if symbols < MIN_SYMBOL_SHARE * len(sample):
        return None
    if named and symbols >= MANY_SYMBOLS_SHARE * len(sample) and lines < MIN_SIGNS:
        return named[0]
    if sum(1 for _ in CODE_LINE.finditer(sample)) < MIN_CODE_LINE_SHARE * lines:
        return None
    signs = {
        language.name: sum(1 for _ in language.signs.finditer(sample))
        for language in LANGUAGES
        if language.name in named or language.name not in NAMED_ONLY
    }
    best = max(signs, key=lambda key: (signs[key], key in named))
    own = max(named, key=lambda key: signs[key], default=best)
    if signs[own] and signs[own] >= LEAD_OF_NAME * signs[best]:
        return own if named or _are_enough(signs[own], lines) else None
    return best if _are_enough(signs[best], lines) else None


def _are_enough(signs: int, lines: int) -> bool:
    return signs >= max(MIN_SIGNS, MIN_SIGN_SHARE * lines)


def _named(name: str) -> tuple[str, ...]:
    """Return the languages a file name stands for."""
    base = name.lower().rpartition("/")[2]
    if base in FILE_NAMES:
        return (FILE_NAMES[base],)
    suffix = base.rpartition(".")[2] if "." in base else ""
    return tuple(language.name for language in LANGUAGES if suffix in language.suffixes)
