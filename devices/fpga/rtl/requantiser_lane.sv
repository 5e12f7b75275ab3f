// One channel's way from a finished int32 sum to an int8 value, eight cycles long:
//   value = clamp8(zero + round((sum + bias) * multiplier / 2**(shift + 17))), halves rounded up, shift <= 47.
// The 32 x 31 bit product is made of four products of 17 bits so that no cycle holds more than one of them.
module requantiser_lane (
    input  logic               clk,
    input  logic signed [31:0] sum,
    input  logic signed [31:0] bias,
    input  logic        [30:0] multiplier,
    input  logic        [ 5:0] shift,
    input  logic signed [ 7:0] zero,
    output logic signed [ 7:0] value
);
  logic signed [31:0] biased, high_high;
  logic signed [16:0] high, low, times_high, times_low;
  logic signed [32:0] high_low, low_high;
  logic [31:0] low_low;
  logic signed [33:0] middle;
  logic signed [63:0] outer;
  logic signed [47:0] scaled, coarse, fine;
  logic signed [10:0] rounded, moved;

  assign high = {biased[31], biased[31:16]};
  assign low = {1'b0, biased[15:0]};
  assign times_high = {2'b0, multiplier[30:16]};
  assign times_low = {1'b0, multiplier[15:0]};
  assign moved = rounded + 11'(zero);
  always_ff @(posedge clk) begin
    biased <= sum + bias;
    high_high <= 32'(high * times_high);
    high_low <= 33'(high * times_low);
    low_high <= 33'(low * times_high);
    low_low <= 32'(low * times_low);
    middle <= 34'(high_low) + 34'(low_high);
    outer <= {high_high, low_low};
    // the lower 16 bits of the product decide nothing: the middle adds no carry to them
    scaled <= 48'(outer >>> 16) + 48'(middle);
    case (shift[5:3])
      3'd0: coarse <= scaled;
      3'd1: coarse <= scaled >>> 8;
      3'd2: coarse <= scaled >>> 16;
      3'd3: coarse <= scaled >>> 24;
      3'd4: coarse <= scaled >>> 32;
      default: coarse <= scaled >>> 40;
    endcase
    fine <= coarse >>> shift[2:0];
    // one fraction bit is left; what lies beyond the range of int8 whatever the zero is held at +-511
    if (&fine[47:10] || ~|fine[47:10]) rounded <= 11'($signed(fine[10:1])) + 11'(fine[0]);
    else rounded <= fine[47] ? -11'sd511 : 11'sd511;
    value <= moved > 11'sd127 ? 8'sd127 : moved < -11'sd128 ? -8'sd128 : moved[7:0];
  end
endmodule
