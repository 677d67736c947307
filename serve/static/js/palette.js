/**
 * Colours for up to eight groups, told apart by lightness as well as by hue, and by most people who see fewer hues
 * (after Okabe and Ito, 2008); darker on paper and lighter on black.
 */

const LIGHT = ["#0b6b5d", "#c2410c", "#2563b8", "#a21c6b", "#8a6a00", "#5b3fb0", "#3f7d20", "#b02a37"];
const DARK = ["#5fd0bb", "#f59f6a", "#7fb4f5", "#ee8fc4", "#e3c44f", "#b6a2f7", "#a0d778", "#f28b93"];

export const MOST_GROUPS = LIGHT.length;

/** @param {boolean} dark */
export function groupColours(dark) {
  return dark ? DARK : LIGHT;
}
