"""What a message does, by rules: one of seven classes after Searle's kinds of speech act and what chats are full of.

The rules look at the first words and the last mark of an English message. They are a rough count, not a judgement, and every
figure made of them is labelled so.
"""

import re

METHOD = "rules on the first words and the last mark of English messages"
CLASSES = ("greeting", "thanks", "apology", "promise", "question", "request", "statement")

_FILLERS = r"well|oh|ok(?:ay)?|so|and|but|now|please|sure|of course|certainly"
_OPENINGS = {
    "greeting": "hi|hello|hey|good (?:morning|afternoon|evening|day|night)|greetings|welcome|bye|goodbye|farewell",
    "thanks": r"thanks|thank you|many thanks|thx|cheers|much obliged|i(?:'m| am) (?:grateful|obliged)",
    "apology": (
        r"sorry|apologies|my apologies|pardon|forgive me|excuse me|i(?:'m| am) (?:very |so |truly )?sorry|i apologi[sz]e"
        r"|i beg (?:your )?pardon"
    ),
    "asked": "(?:can|could|will|would) (?:you|thou|ye)",
    "question": (
        "who|whom|whose|what|which|when|where|why|how|is|are|am|was|were|do|does|did|has|have|had|should|shall|may|might"
        "|would it|isn't|aren't|don't"
    ),
    "request": (
        "add|analy[sz]e|answer|arrange|calculate|categori[sz]e|change|choose|classify|come|compare|complete|compose|compute"
        "|convert|construct|continue|correct|create|define|describe|design|detect|determine|develop|discuss|draft|edit"
        "|estimate|evaluate|explain|extract|fetch|fill|find|fix|generate|get|give|go|guess|help|identify|imagine|implement"
        "|improve|infer|list|look|make|match|name|outline|paraphrase|pick|plan|play|predict|produce|propose|provide|put|rank"
        "|read|recommend|remove|rename|repeat|rephrase|replace|report|research|respond|rewrite|say|search|select|send|show"
        "|simplify|solve|sort|speak|suggest|sum|summari[sz]e|take|tell|think|transform|translate|turn|use|verify|walk|work"
        "|write|i (?:want|need|would like|'d like)|let(?:'s| us)"
    ),
    "promise": "i(?:'ll| will| shall| promise| swear)|we(?:'ll| will| shall| promise)|let me",
}
_OPENS = {
    name: re.compile(rf"[\W_]*(?:(?:{_FILLERS})\b[\s,.!]*)*(?:{words})\b", re.IGNORECASE)
    for name, words in _OPENINGS.items()
}
_PLEASE = re.compile(r"[\W_]*please\b", re.IGNORECASE)


def speech_act(text: str) -> str:
    """Return the class of a message; `statement` where no rule applies."""
    text = text.strip()
    opening = next((name for name, pattern in _OPENS.items() if pattern.match(text)), "statement")
    if opening in {"greeting", "thanks", "apology"}:
        return opening
    if opening == "asked" or (opening != "question" and _PLEASE.match(text)):
        return "request"
    return "question" if text.endswith("?") else opening
