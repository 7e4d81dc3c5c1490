"""Numbers as people read them: thousands parted, four significant digits, no false precision."""

import math

from caslon.report.blocks import Value

NOTHING = "–"
SIGNIFICANT_DIGITS = 4


def readable(value: Value) -> str:
    """Return a value as text: 1,234,567 · 0.03125 · 1.234e-05 · yes · – for nothing."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _readable_float(value)
    return value


def _readable_float(value: float) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if size >= 999.95:  # four digits would round it to a thousand
        return f"{value:,.0f}"
    if size and size < 1e-3:
        return f"{value:.{SIGNIFICANT_DIGITS - 1}e}"
    text = f"{value:.{SIGNIFICANT_DIGITS}g}"
    return text if "e" not in text else f"{value:,.0f}"


def readable_bytes(count: int) -> str:
    """Return a number of bytes in binary units: 512 B · 1.5 KiB · 2.0 GiB."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:,.1f} {unit}"


def readable_seconds(seconds: float) -> str:
    """Return a span of time: 0.42 s · 12.3 s · 4 min 05 s · 2 h 07 min."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def share(part: float, whole: float) -> str:
    """Return a part of a whole in percent, or a dash when there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else NOTHING
