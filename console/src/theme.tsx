// Light or dark: as the machine has it, until somebody says otherwise in this tab.
import { useEffect, useState } from "preact/hooks";

const NEXT: Record<string, string> = { auto: "light", light: "dark", dark: "auto" };

export function Theme() {
  const [theme, setTheme] = useState(() => document.documentElement.dataset["theme"] ?? "auto");
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
  }, [theme]);
  return (
    <button type="button" class="quiet" onClick={() => setTheme(NEXT[theme] ?? "auto")} title="Light, dark, or as the machine has it">
      Theme: {theme}
    </button>
  );
}
