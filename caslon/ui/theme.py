"""The look of the page: quiet, in the system's own fonts, from paper to ink."""

import gradio as gr

# Printer's red-brown, from paper to ink.
RUST = gr.themes.Color(
    c50="#fdf5f0",
    c100="#fae6da",
    c200="#f3cbb3",
    c300="#e8a680",
    c400="#d97d4a",
    c500="#c2571a",
    c600="#b04c15",
    c700="#9a4413",
    c800="#7d370f",
    c900="#5f2b0d",
    c950="#3d1b08",
    name="rust",
)


def theme() -> gr.themes.Base:
    """Return a quiet theme in the system's own fonts."""
    return gr.themes.Base(
        primary_hue=RUST,
        neutral_hue="stone",
        radius_size="sm",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_padding="10px 0px",
        block_label_border_width="0px",
        input_background_fill="*background_fill_primary",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="#ffffff",
        button_large_text_weight="500",
        button_large_text_size="*text_md",
        button_large_padding="8px 18px",
        slider_color="*primary_600",
    )
