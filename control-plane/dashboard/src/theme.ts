import {
  Alert,
  Anchor,
  Button,
  type CSSVariablesResolver,
  createTheme,
  type MantineColorsTuple,
  type MantineThemeOverride,
  Modal,
  Tooltip,
} from "@mantine/core";

const muster: MantineColorsTuple = [
  "#e3faf6",
  "#cff0ea",
  "#a2e0d6",
  "#71cfc1",
  "#4ac1b0",
  "#31b8a5",
  "#1fa391",
  "#0f8b7c",
  "#07766a",
  "#005a50",
];

/** Greys with a little blue, from text (0) to the darkest surface (9). */
const dark: MantineColorsTuple = [
  "#d9dee4",
  "#b8c0ca",
  "#9aa4b0",
  "#6b7682",
  "#303942",
  "#262e36",
  "#1b2127",
  "#12161a",
  "#0d1114",
  "#090c0f",
];

export const theme: MantineThemeOverride = createTheme({
  primaryColor: "muster",
  // White text on the filled colours needs a contrast of 4.5.
  primaryShade: { light: 8, dark: 8 },
  colors: { muster, dark },
  defaultRadius: "sm",
  cursorType: "pointer",
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace',
  fontSizes: { xs: "0.75rem", sm: "0.8125rem", md: "0.875rem", lg: "1rem", xl: "1.125rem" },
  headings: {
    fontWeight: "600",
    sizes: { h1: { fontSize: "1.5rem" }, h2: { fontSize: "1.0625rem" }, h3: { fontSize: "1.25rem" } },
  },
  respectReducedMotion: true,
  components: {
    Alert: Alert.extend({
      // A tint of the tone instead of Mantine's own, which is a loud block in the dark.
      styles: (_theme, { color }) => {
        const tone = color === "red" ? "bad" : color === "yellow" ? "warn" : color === "teal" ? "good" : "busy";
        return {
          root: {
            background: `color-mix(in srgb, var(--state-${tone}) 9%, var(--surface))`,
            border: `1px solid color-mix(in srgb, var(--state-${tone}) 45%, var(--line))`,
          },
          title: { color: "var(--mantine-color-text)" },
          icon: { color: `var(--state-${tone})` },
          message: { color: "var(--mantine-color-text)" },
        };
      },
    }),
    Anchor: Anchor.extend({ defaultProps: { inherit: true } }),
    Button: Button.extend({ styles: { label: { fontWeight: 500 } } }),
    Tooltip: Tooltip.extend({
      defaultProps: { openDelay: 250, withArrow: true, events: { hover: true, focus: true, touch: true } },
    }),
    Modal: Modal.extend({
      defaultProps: { centered: true, overlayProps: { blur: 1 } },
      styles: {
        content: { background: "var(--surface)" },
        header: { background: "var(--surface)" },
        title: { fontWeight: 600 },
      },
    }),
  },
});

/** Our own variables: surfaces, lines and the colours of states, for each scheme. */
export const cssVariables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-body": "#fbfcfc",
    "--mantine-color-dimmed": "#56616d",
    "--mantine-color-placeholder": "#6a7580",
    "--surface": "#ffffff",
    "--surface-raised": "#f4f6f7",
    "--line": "#d9dfe4",
    "--line-soft": "#e9edf0",
    "--hover": "#f1f4f5",
    "--focus": "#07766a",
    "--state-good": "#0d8a5b",
    "--state-busy": "#1f6fd0",
    "--state-warn": "#b26a00",
    "--state-bad": "#cf2e2e",
    "--state-idle": "#6b7682",
  },
  dark: {
    "--mantine-color-body": "#12161a",
    "--mantine-color-dimmed": "#9aa4b0",
    "--mantine-color-placeholder": "#86909b",
    "--surface": "#161b20",
    "--surface-raised": "#1b2127",
    "--line": "#303942",
    "--line-soft": "#232a31",
    "--hover": "#1d242a",
    "--focus": "#4ac1b0",
    "--state-good": "#3fbf8a",
    "--state-busy": "#5aa2f2",
    "--state-warn": "#e0a136",
    "--state-bad": "#f06a6a",
    "--state-idle": "#8a95a1",
  },
});
